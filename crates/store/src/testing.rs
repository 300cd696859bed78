//! Engines that fail at will, and the checkers of histories.
