"""Tests of one Keras backend, the one that KERAS_BACKEND names; `test_keras.py` runs them on each, in its own process.

By hand: KERAS_BACKEND=jax python -m pytest -o "python_files=on_*.py" tests/bridge/keras_cases
"""
