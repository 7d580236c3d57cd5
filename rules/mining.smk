rule mine_pairs:
    """Pair the training images that the encoder of an earlier run holds to be alike."""
    input:
        encoder=encoder_of_pairs,
        dataset=dataset_of_pairs,
    output:
        pairs="<results>/pairs/{pairs}/pairs.npy",
        features="<results>/pairs/{pairs}/features.npy",
        manifest="<results>/pairs/{pairs}/manifest.json",
    log:
        "<logs>/mine_pairs/{pairs}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(pairs_of),
        code=code_of(pairs_of),
    shell:
        "exec python -m clsp mine-pairs --spec {params.spec:q} --code {params.code}"
        " --encoder {input.encoder:q} --dataset {input.dataset:q} --pairs {output.pairs:q}"
        " --features {output.features:q} --manifest {output.manifest:q} 2> {log:q}"
