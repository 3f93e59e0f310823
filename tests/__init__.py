"""Tests of ML Hub; the folders mirror the packages."""
