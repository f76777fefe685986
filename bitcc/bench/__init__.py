"""Measurements in onnxruntime: the op against its peers (``op``), and a model before and after (``model``).

Everything runs in one process, in rounds: each contender runs once a round and the order rotates, so that
what disturbs the machine disturbs all, and ratios are taken within a round. ``table`` draws the results.
"""
