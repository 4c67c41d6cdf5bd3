"""Settings of a run, grouped by what they decide, and their flat form: options of the command line and keys of ``study.yaml``."""

from optimizer.search.config.checks import checked
from optimizer.search.config.config import GROUPS, OPTIONS, Config, refused
from optimizer.search.config.describing import example_yaml, json_schema
from optimizer.search.config.inputs import Inputs, check_count
from optimizer.search.config.loading import Loading
from optimizer.search.config.metric import MetricSpec, check_named, metric_words, parse_metrics
from optimizer.search.config.option import Option, Panel, Settings, option_of
from optimizer.search.config.output import Output
from optimizer.search.config.places import Places, without_password
from optimizer.search.config.protocol import Protocol
from optimizer.search.config.rendering import Rendering
from optimizer.search.config.search import Search
from optimizer.search.config.values import DEMO, Dtype, KeepImages

__all__ = [
    "DEMO",
    "GROUPS",
    "OPTIONS",
    "Config",
    "Dtype",
    "Inputs",
    "KeepImages",
    "Loading",
    "MetricSpec",
    "Option",
    "Output",
    "Panel",
    "Places",
    "Protocol",
    "Rendering",
    "Search",
    "Settings",
    "check_count",
    "check_named",
    "checked",
    "example_yaml",
    "json_schema",
    "metric_words",
    "option_of",
    "parse_metrics",
    "refused",
    "without_password",
]
