"""The steps of the workflows: one use case per state, called by the handler of the same name.

A step takes plain values, does its one thing, and gives a plain result that fits the workflow's state.
"""
