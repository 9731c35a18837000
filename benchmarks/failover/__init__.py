"""What a client sees when a member fails, policy by policy, claim by claim."""
