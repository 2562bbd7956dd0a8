"""One request and its answer, with no server: what is asked, where it goes, what is known already, what comes back."""
