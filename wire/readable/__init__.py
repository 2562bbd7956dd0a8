"""Requests and answers made readable for people."""
