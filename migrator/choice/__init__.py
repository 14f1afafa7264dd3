"""Which host can take a container, and which of those takes it best. Decisions only: values in, values out."""
