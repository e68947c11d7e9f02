"""That this file is here puts its directory on the import path; the SDK's generated code is older than its library."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")
