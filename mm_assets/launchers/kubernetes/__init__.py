"""Stages as Kubernetes pods."""
