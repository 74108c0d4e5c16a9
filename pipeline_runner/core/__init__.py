"""The heart of the product: model, expressions, scope, durations, errors, report.

Everything here also runs inside the workflow and is replayed. It must not import
temporalio, yaml, a clock, a random source, os or threads, nor any registry.
"""
