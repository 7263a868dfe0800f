"""Faults on hosts that one machine plays, and how long training takes to come back from each of them."""
