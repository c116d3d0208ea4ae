"""Integer graph -> layers -> tiles -> on-chip allocation -> schedule -> instructions."""
