"""The public interface for programs; import its names from ``pipeline_runner``."""
