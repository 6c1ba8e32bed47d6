"""PURE: trades of any order in, one consecutive tape per symbol out."""
