"""Scoring of ranked lists under the official protocols."""
