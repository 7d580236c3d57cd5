"""Which training images a frozen encoder holds to be alike."""
