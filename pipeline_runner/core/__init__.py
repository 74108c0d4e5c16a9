"""The core of the product: model, expressions, scopes, durations, errors, reports.

Everything here also runs inside the workflow and is replayed. It must not import temporalio, yaml, a
clock, a random source, os or threads, nor use any registry.
"""
