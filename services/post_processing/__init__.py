"""post_processing: checks a generated answer against its sources before anybody sees it."""
