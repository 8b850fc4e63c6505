"""Best-of-K steering: proposals, scorers, and the policy that chooses between them."""
