"""The APIs: one file each, and what several of them share."""
