"""memlift: move an agent's memory between stores; nothing lost, and proof of it."""
