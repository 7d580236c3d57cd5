rule pretrain_encoder:
    """Contrastive pretraining of one run: a method, a positive source, a seed."""
    input:
        dataset=dataset_of_run,
        bank=bank_of_run,
        pairs=pairs_of_run,
        checked=data_checked,
    output:
        encoder="<results>/runs/{run}/encoder.safetensors",
        start="<results>/runs/{run}/checkpoints/start.safetensors",
        middle="<results>/runs/{run}/checkpoints/middle.safetensors",
        final="<results>/runs/{run}/checkpoints/final.safetensors",
        history="<results>/runs/{run}/history.jsonl",
        manifest="<results>/runs/{run}/manifest.json",
    log:
        "<logs>/pretrain_encoder/{run}.log",
    benchmark:
        "<benchmarks>/pretrain_encoder/{run}.tsv"
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(pretrain_of),
        code=code_of(pretrain_of),
        scratch=scratch_of("pretrain-encoder"),
    shell:
        "export CLSP_PROCESSES={resources.gpu}; exec python -m clsp pretrain-encoder --spec {params.spec:q} --code {params.code}"
        " --dataset {input.dataset:q} --bank {input.bank:q} --pairs {input.pairs:q}"
        " --encoder {output.encoder:q} --start {output.start:q} --middle {output.middle:q}"
        " --final {output.final:q} --history {output.history:q} --scratch {params.scratch:q}"
        " --manifest {output.manifest:q} 2> {log:q}"
