"""What this provider costs, beside its peers in the same run."""
