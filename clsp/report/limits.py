"""What no audit can show; every report and every audit prints it."""

# The sentence of the specification, word for word.
LIMITS = (
    "Limit: a forger who really trained on test data and keeps all records consistent passes L2; "
    "only A09/A11/A12 replays, RCP-HIGH and L4 speak to that. "
    "Unsigned records prove consistency, not authorship."
)
MEANING = (
    "In plain words: passing shows that every number printed here follows from the stored "
    "predictions and that every file is the one that its record names. It does not show that "
    "nobody cheated while the records were made. What speaks to that is the count of duplicates "
    "between training and test images (A09), drawing candidates and training steps again at level "
    "L3 (A11, A12), results above the authors' own curves (RCP-HIGH, check A27), and repeating "
    "whole runs (L4). Nothing is signed, so that the records cannot show who wrote them."
)
