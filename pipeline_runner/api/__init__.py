"""What the package offers to programs; import it from ``pipeline_runner`` itself."""
