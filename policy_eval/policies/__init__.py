"""Who acts: the protocol of a policy, adapters, and small cloned policies."""
