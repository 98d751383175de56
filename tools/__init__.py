"""Programs for those who work on fastloss: what they write is committed."""
