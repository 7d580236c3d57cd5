rule generate_shard:
    """Draw one shard of a bank: K candidates for each of its anchors."""
    input:
        denoiser=denoiser_of_bank,
        dataset=dataset_of_bank,
        checked=data_checked,
    output:
        images="<results>/banks/{bank}/shards/{scatteritem}.npy",
        manifest="<results>/banks/{bank}/shards/{scatteritem}.manifest.json",
    log:
        "<logs>/generate_shard/{bank}/{scatteritem}.log",
    benchmark:
        "<benchmarks>/generate_shard/{bank}/{scatteritem}.tsv"
    priority: 1
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(shard_of),
        code=code_of(shard_of),
        scratch=scratch_of("generate-shard"),
    shell:
        "exec python -m clsp generate-shard --spec {params.spec:q} --code {params.code}"
        " --shard {wildcards.scatteritem} --denoiser {input.denoiser:q}"
        " --dataset {input.dataset:q} --images {output.images:q}"
        " --scratch {params.scratch:q} --manifest {output.manifest:q} 2> {log:q}"


rule gather_bank:
    """Join the shards of a bank and check that every candidate is there exactly once."""
    input:
        images=gather.shard("<results>/banks/{{bank}}/shards/{scatteritem}.npy"),
        shards=gather.shard(
            "<results>/banks/{{bank}}/shards/{scatteritem}.manifest.json"
        ),
        dataset=dataset_of_bank,
    output:
        images="<results>/banks/{bank}/images.npy",
        index="<results>/banks/{bank}/index.npy",
        manifest="<results>/banks/{bank}/manifest.json",
    log:
        "<logs>/gather_bank/{bank}.log",
    params:
        spec=spec_of(bank_of),
        code=code_of(bank_of),
    shell:
        "exec python -m clsp gather-bank --spec {params.spec:q} --code {params.code}"
        " --shards {input.shards:q} --dataset {input.dataset:q} --images {output.images:q}"
        " --index {output.index:q} --manifest {output.manifest:q} 2> {log:q}"
