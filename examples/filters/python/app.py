"""Routes one tenant's trouble: warnings and errors of a tenant's requests are marked with its name for the
operators, and kept from its users where that is wanted. Leaves every other narration as it is."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Context, Description, Narration, Severity, Sinks

HUMAN_CHARS_MAX = 100

# The worker keeps an instance for each job, so what is kept here belongs to one request.
tenants = []


def read(config):
    """The tenants of a configuration: prefix of their correlation ids, name, whether users are told."""
    config = json.loads(config)
    for key in config:
        if key != "tenants":
            raise Err(f"{key}: there is no such key, only `tenants`")
    found = []
    for at, tenant in enumerate(config.get("tenants", [])):
        for key in tenant:
            if key not in ("prefix", "name", "tell_user"):
                raise Err(f"tenants[{at}].{key}: known are prefix, name, tell_user")
        prefix = tenant.get("prefix", "")
        if not isinstance(prefix, str) or not prefix:
            raise Err(f"tenants[{at}].prefix: the beginning of a correlation id is expected")
        name = str(tenant.get("name", prefix.rstrip("-")))
        found.append((prefix, name, bool(tenant.get("tell_user", False))))
    return found


SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "tenants": {
            "type": "array",
            "description": "whose trouble goes to the operators, by the prefix of correlation ids",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["prefix"],
                "properties": {
                    "prefix": {"type": "string", "minLength": 1},
                    "name": {"type": "string"},
                    "tell_user": {"type": "boolean", "default": False},
                },
            },
        }
    },
}


class Filter(exports.Filter):
    def describe(self) -> Description:
        """Called once, when the filter is loaded."""
        kinds = ["request-rejected", "inference-failed", "inference-cancelled"]
        return Description("tenant-routes", "0.1.0", kinds, False, json.dumps(SCHEMA))

    def configure(self, config: str) -> None:
        """Called once an instance, with `[filter.config]` as JSON. `Err` refuses it."""
        global tenants
        tenants = read(config)

    def narrate(self, context: Context, narration: Narration) -> Narration:
        """Called for every fact of the kinds above, in order."""
        if context.severity not in (Severity.WARN, Severity.ERROR):
            return narration
        for prefix, name, tell_user in tenants:
            if (context.correlation_id or "").startswith(prefix):
                narration.human = f"[{name}] {narration.human}"[:HUMAN_CHARS_MAX]
                if not tell_user:
                    narration.sinks &= ~Sinks.SSE
                break
        return narration
