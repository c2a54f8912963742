package main

import (
	"crypto/rand"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const rsaBits = 2048

var keyTypes = map[string]int{
	"ed25519": crypto.Ed25519, "rsa": crypto.RSA, "secp256k1": crypto.Secp256k1, "ecdsa": crypto.ECDSA,
}

// newKey makes the key of a host.
func newKey(name string) (crypto.PrivKey, error) {
	keyType, known := keyTypes[name]
	if !known {
		return nil, fmt.Errorf("%q is no key type", name)
	}
	key, _, err := crypto.GenerateKeyPairWithReader(keyType, rsaBits, rand.Reader)
	return key, err
}
