"""The proxy as a process of this machine: started, found, stopped, set up, checked."""
