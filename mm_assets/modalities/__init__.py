"""Kinds of data a sample can hold: one table of them, one package each, and the words for what is refused."""
