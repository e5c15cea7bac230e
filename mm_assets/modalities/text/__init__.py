"""Texts: UTF-8, read as bytes."""
