"""The proxy as a process of this machine: started, stopped, found, set up, checked, run as a service."""
