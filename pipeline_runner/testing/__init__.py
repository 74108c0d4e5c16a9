"""Stand-ins for what activities use, for tests of pipelines and of activities.

May import everything of this package; nothing else of it imports this.
"""
