rule fetch_dataset:
    """Download the files of a dataset, or draw its miniature from a seed."""
    output:
        files=directory("<results>/data/raw/{dataset}/files"),
        manifest="<results>/data/raw/{dataset}/manifest.json",
    log:
        "<logs>/fetch_dataset/{dataset}.log",
    params:
        spec=spec_of(fetch_of),
        code=code_of(fetch_of),
    shell:
        "exec python -m clsp fetch-dataset --spec {params.spec:q} --code {params.code}"
        " --files {output.files:q} --manifest {output.manifest:q} 2> {log:q}"


rule prepare_dataset:
    """Turn a dataset into one file of uint8 pixels that later stages map into memory."""
    input:
        raw=raw_of_dataset,
    output:
        images="<results>/data/prepared/{dataset}/images.npy",
        labels="<results>/data/prepared/{dataset}/labels.npy",
        item_list="<results>/data/prepared/{dataset}/items.csv",
        card="<results>/data/prepared/{dataset}/card.json",
        manifest="<results>/data/prepared/{dataset}/manifest.json",
    log:
        "<logs>/prepare_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(ARRAYS),
    threads: 2
    params:
        spec=spec_of(prepare_of),
        code=code_of(prepare_of),
        content=content_of_dataset,
    shell:
        "export CLSP_DECODE_THREADS={threads}; exec python -m clsp prepare-dataset --spec {params.spec:q} --code {params.code}"
        " --raw {input.raw:q} --images {output.images:q} --labels {output.labels:q}"
        " --items {output.item_list:q} --card {output.card:q} --manifest {output.manifest:q} 2> {log:q}"


use rule prepare_dataset as encode_dataset with:
    output:
        images="<results>/data/prepared/{dataset}/images.arrow",
        labels="<results>/data/prepared/{dataset}/labels.npy",
        item_list="<results>/data/prepared/{dataset}/items.csv",
        card="<results>/data/prepared/{dataset}/card.json",
        manifest="<results>/data/prepared/{dataset}/manifest.json",
    log:
        "<logs>/encode_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(ENCODED),


checkpoint check_data:
    """Refuse settings that the data cannot meet, before anything is trained."""
    input:
        datasets=[prepared(name) for name in plan.datasets_needed(PARAMS)],
    output:
        checked="<results>/provenance/data-check/checked.json",
        manifest="<results>/provenance/data-check/manifest.json",
    log:
        "<logs>/check_data.log",
    params:
        spec=spec_of(report_of("check-data")),
        code=code_of(report_of("check-data")),
        shards=PARAMS.shards,
    shell:
        "exec python -m clsp check-data --spec {params.spec:q} --code {params.code}"
        " --datasets {input.datasets:q} --shards {params.shards} --checked {output.checked:q}"
        " --manifest {output.manifest:q} 2> {log:q}"
