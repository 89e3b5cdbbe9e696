"""The rules that say which tokens of a prompt are salient; `tokens` chooses among them."""
