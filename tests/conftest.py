"""Prepares the process as `unveil serve` does, before any test imports torch, and keeps the servers in it quiet."""

import logging

import structlog

from service import environment

environment.prepare()
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
