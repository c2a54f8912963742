"""What peers, disks and silence do to the rates of aiolibp2p, on one machine over 127.0.0.1."""
