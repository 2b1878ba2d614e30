"""The commands of `patchflow`: what they take (settings, arguments) and what they do, a file for each group of them."""
