"""What knows Hypercorn's insides: connections, the short way of a hit, sockets."""
