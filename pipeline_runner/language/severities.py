"""The severity of every rule of the checker.

An error prevents every start. A warning is reported, and a comment may ignore it. The page of each rule
in :mod:`pipeline_runner.language.rules` describes it; checking does not read these pages.
"""

from typing import Literal

Severity = Literal["error", "warning"]

ERROR: Severity = "error"
WARNING: Severity = "warning"

SEVERITIES: dict[str, Severity] = {
    # Comments
    "unneeded-ignore": WARNING,
    # The text
    "bad-key": ERROR,
    "bad-number": ERROR,
    "duplicate-key": ERROR,
    "empty-file": ERROR,
    "file-too-large": ERROR,
    "merge-key": ERROR,
    "not-utf8": ERROR,
    "recursive-alias": ERROR,
    "too-deep": ERROR,
    "too-many-values": ERROR,
    "unknown-anchor": ERROR,
    "unknown-tag": ERROR,
    "unreadable-file": ERROR,
    "yaml-syntax": ERROR,
    # Keys and values
    "bad-cron": ERROR,
    "bad-duration": ERROR,
    "bad-identifier": ERROR,
    "bad-time": ERROR,
    "bad-time-zone": ERROR,
    "bad-value": ERROR,
    "compensation-kind": ERROR,
    "duplicate-entry": ERROR,
    "empty-list": ERROR,
    "empty-text": ERROR,
    "key-conflict": ERROR,
    "literal-text": ERROR,
    "missing-input": ERROR,
    "missing-key": ERROR,
    "not-supported-yet": ERROR,
    "step-kind": ERROR,
    "template-key": WARNING,
    "unknown-key": ERROR,
    "unreachable-catch": WARNING,
    "unreachable-step": WARNING,
    "wrong-kind-key": ERROR,
    "wrong-type": ERROR,
    # Names and expressions
    "dollar-template": WARNING,
    "duplicate-step-id": ERROR,
    "expression-syntax": ERROR,
    "lost-brace": WARNING,
    "maybe-null": WARNING,
    "not-deterministic": ERROR,
    "secret-elsewhere": ERROR,
    "secret-place": ERROR,
    "secret-use": ERROR,
    "step-order": ERROR,
    "step-scope": ERROR,
    "unknown-attribute": ERROR,
    "unknown-filter": ERROR,
    "unknown-function": ERROR,
    "unknown-input": ERROR,
    "unknown-name": ERROR,
    "unknown-policy": ERROR,
    "unknown-secret": ERROR,
    "unknown-step": ERROR,
    "unknown-test": ERROR,
    "unused-input": WARNING,
    "unused-policy": WARNING,
    "unused-secret": WARNING,
    # Types
    "bad-default": ERROR,
    "bad-schema": ERROR,
    "changed-number": WARNING,
    "constant-comparison": WARNING,
    "constant-condition": WARNING,
    "filter-type": ERROR,
    "not-a-boolean": ERROR,
    "not-a-list": ERROR,
    "not-comparable": ERROR,
    "null-in-text": ERROR,
    "operand-type": ERROR,
    "slow-pattern": ERROR,
    "type-mismatch": ERROR,
    "unchecked-format": WARNING,
    "undeclared-attribute": WARNING,
    "unknown-schema-keyword": WARNING,
    # Activities
    "bad-module": ERROR,
    "missing-argument": ERROR,
    "missing-extra": WARNING,
    "missing-parameter": ERROR,
    "same-activity": WARNING,
    "shell-template": WARNING,
    "undeclared-activity": WARNING,
    "undeclared-parameter": WARNING,
    "unknown-activity": ERROR,
    "unknown-argument": ERROR,
    "unknown-parameter": ERROR,
    # Children
    "child-cycle": ERROR,
    "missing-child-input": ERROR,
    "same-name": WARNING,
    "unknown-child": ERROR,
    "unknown-child-input": ERROR,
    # Undo
    "missing-undo": WARNING,
    "pivot-place": ERROR,
    "undo-input": WARNING,
    "undo-output": WARNING,
    # Timeouts and retries
    "heartbeat-timeout": WARNING,
    "idempotency-key": WARNING,
    "retry-intervals": ERROR,
    "timeout-order": WARNING,
    "unlimited-retries": WARNING,
    "useless-policy": WARNING,
    "useless-retry": WARNING,
    # Size
    "history-size": WARNING,
    "payload-size": WARNING,
}
"""By rule."""
