"""The filter on sample events, natively. `events.ndjson` holds a whole recording, for `filter replay`."""

import unittest

import app
from componentize_py_types import Err
from wit_world.imports import facts
from wit_world.imports.types import Context, Narration, Severity, Sinks


def told(correlation_id, severity=Severity.ERROR):
    """A sample event, and what the filter makes of it."""
    context = Context(1, 0, "worker", "job", correlation_id, None, "inference-failed", severity,
                      "candle-backend", "error")
    failed = facts.InferenceFailed(facts.FailureCode.INFERENCE_FAILED, "a fault", 3)
    narration = Narration(facts.Fact_InferenceFailed(failed), "job", Sinks.STDOUT | Sinks.SSE,
                          "The computation failed.", None, None)
    return app.Filter().narrate(context, narration)


class Tenants(unittest.TestCase):
    def setUp(self):
        app.Filter().configure('{"tenants":[{"prefix":"acme-"},{"prefix":"bee-","name":"Bee","tell_user":true}]}')

    def test_trouble_of_a_tenant_goes_to_the_operators_under_its_name(self):
        narration = told("acme-17")
        self.assertEqual(narration.human, "[acme] The computation failed.")
        self.assertEqual(narration.sinks, Sinks.STDOUT)

    def test_users_of_a_tenant_are_told_where_that_is_wanted(self):
        self.assertEqual(told("bee-1").sinks, Sinks.STDOUT | Sinks.SSE)

    def test_everything_else_stays_as_it_is(self):
        self.assertEqual(told("other").human, "The computation failed.")
        self.assertEqual(told(None).sinks, Sinks.STDOUT | Sinks.SSE)
        self.assertEqual(told("acme-1", Severity.INFO).human, "The computation failed.")

    def test_what_is_not_understood_is_refused_by_name(self):
        for config in ['{"tenant":[]}', '{"tenants":[{}]}', '{"tenants":[{"prefix":"a","nme":1}]}']:
            with self.assertRaises(Err):
                app.read(config)


if __name__ == "__main__":
    unittest.main()
