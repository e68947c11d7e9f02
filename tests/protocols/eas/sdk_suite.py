"""Runs the SDK's own tests, out of the installed package, with its endpoint and token changed and nothing else.

    python sdk_suite.py HOST:PORT TOKEN [PARENT_PID]

With the server's parent process, the serving process is killed between any two tests: when the last one's items are
committed, as the next one begins with what it finds.
"""

import sys
import unittest

from eas_prediction import test_queue_client as suite

from queue_server import kill_serving, wait_settled

host, token, *parent = sys.argv[1:]
suite.QueueEndpoint = host
suite.QueueToken = token


class Result(unittest.TextTestResult):
    def stopTest(self, test):
        super().stopTest(test)
        if parent:
            wait_settled([test.input_queue, test.sink_queue])
            kill_serving(int(parent[0]), f"http://{host}")


tests = unittest.defaultTestLoader.loadTestsFromModule(suite)
outcome = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(tests)
assert outcome.testsRun == 9, outcome
sys.exit(not outcome.wasSuccessful())
