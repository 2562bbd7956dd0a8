"""One request and its answer, with no server: where it goes, what is known, what comes back."""
