"""A stand-in for EBS: EC2's snapshots and volumes, and the EBS direct APIs, over real image files.

Any AWS client talks to it over HTTP (``AWS_ENDPOINT_URL_EC2``, ``AWS_ENDPOINT_URL_EBS``). Its own side::

    with EbsStandin(folder, delays=Delays(snapshot=60)) as cloud:
        instance = cloud.add_instance(tags={"Name": "db"})
        cloud.add_volume(instance, image=Path("db.img"), device="/dev/sdf")
        cloud.endpoint, cloud.environment   # for clients
        cloud.clock.advance(61)             # every delay and expiry is reckoned by this clock
        cloud.faults.cut("CreateSnapshots", after_effect=True)
        cloud.calls.count("GetSnapshotBlock"), cloud.calls.distinct_blocks

What it does as AWS documents it, row by row: behaviour | AWS document | here. Documents: ``API_x`` is the
page of that action in the EC2 or the EBS direct API reference; ``model`` is the service model that botocore
ships; the other names are pages of the EBS user guide. "Own code" marks an error code that AWS does not
document. Each row has a test in ``tests/contract/ebs_standin``, under the row's name.

Snapshots
    pending | the response comes at once, state ``pending``, the content as of the request |
        API_CreateSnapshots, ebs-creating-snapshot | cloned before the answer, Progress "" in it;
        ``completed`` after ``Delays.snapshot``
    excluded | one snapshot of each attached volume, without the boot volume, without up to 40 data volumes,
        never the root by id | API_CreateSnapshots, model | all or none; own code InvalidParameterValue
    consistent | crash-consistent across the volumes | API_CreateSnapshots | each clone is atomic where the
        file system has reflinks, else a sparse copy that needs stopped writers; the clones of one call
        follow each other within milliseconds, ``around_clones`` can stop the writers meanwhile
    tagged | TagSpecifications and CopyTagsFromSource on every snapshot, 50 tags, no ``aws:`` | model | the
        same
    repeated | no client token: each call makes a set | model | the same
    rates | one snapshot a volume about each 15 s, 5 pending a volume, 100 pending | errors-overview, EBS
        quotas | SnapshotCreationPerVolumeRateExceeded, ConcurrentSnapshotLimitExceeded,
        PendingSnapshotLimitExceeded; ``Quotas``
    described | owners, ids, filters, pages of 5 to 1,000 | API_DescribeSnapshots, model | the same;
        InvalidSnapshot.NotFound, InvalidSnapshotID.Malformed
    ended | ``error``, ``recoverable`` with StateMessage; Progress in per cent | model | ``doom_snapshot``,
        ``end_snapshot``
    eventual | a new snapshot may not show yet | EC2 eventual consistency | ``Delays.describe``
    deleted | a pending one too; not one in use by an AMI (InvalidSnapshot.InUse), not a locked one |
        API_DeleteSnapshot, snapshot-lock | the same; own code OperationNotPermitted for a locked one
    kept | deletion takes no block that a later snapshot needs | API_DeleteSnapshot | each has a file of its
        own
    tags | CreateTags adds and overwrites | API_CreateTags | on instances, volumes, snapshots

Instances and volumes
    instances | ids, filters, pages (not with ids) | API_DescribeInstances | a reservation for each instance
    volumes | ids, filters, pages, attachments | API_DescribeVolumes | the same
    created | ``creating``, then ``available``, with the snapshot's bytes, Size GiB | API_CreateVolume | a
        clone that is extended sparsely; ``Delays.volume``
    refused | smaller than the snapshot, unknown zone, pending snapshot, IOPS and throughput by type |
        API_CreateVolume, errors-overview | InvalidParameterValue, InvalidZone.NotFound, IncorrectState,
        InvalidParameterCombination, MissingParameter
    idempotent | ClientToken | API_CreateVolume | the same volume; IdempotentParameterMismatch
    encrypted | from an encrypted snapshot always; KmsKeyId needs Encrypted; a bad key fails later |
        API_CreateVolume | the volume ends as ``error`` (``disable_key``)
    initialized | 100 to 300 MiB/s, from snapshots only, 5,000 MiB/s in the Region; progress and estimate |
        API_CreateVolume, initalize-volume, API_InitializationStatusDetails | DescribeVolumeStatus; own code
        ResourceLimitExceeded over the Region's rate; a volume's bytes are all there at once
    attached | same zone, free device, ``attaching`` then ``attached`` | API_AttachVolume, errors-overview |
        InvalidVolume.ZoneMismatch, VolumeInUse, IncorrectState; ``Delays.attach``
    removed | only unattached ones | API_DeleteVolume | VolumeInUse; gone at once

Fast snapshot restore
    fast | ``enabling``, ``optimizing`` for 60 minutes a TiB, ``enabled``; ``disabling``, ``disabled``; off
        when the snapshot is deleted | view-fsr-enabled-snapshots, manage-fsr-enable | by the clock
    fast-limits | up to 16 TiB, a quota of snapshots a Region; failures in Unsuccessful beside HTTP 200 |
        ebs-fast-snapshot-restore, EBS quotas | 5; own code ResourceLimitExceeded
    fast-credits | a volume is initialized at creation where there is a credit: none at first, min(10,
        1024/GiB) an hour; an initialization rate overrides it | volume-creation-credits, model |
        FastRestored

EBS direct APIs
    completed | only completed snapshots are served | ebsapi-faq | ResourceNotFoundException,
        SNAPSHOT_NOT_FOUND (as clients saw it: awslabs/coldsnap#141), also for ``Delays.readable`` after
        completion
    archived | not archived ones | readsnapshots | ValidationException; own choice of INVALID_SNAPSHOT_ID
    listed | unique, ascending indexes of written blocks only; BlockSize 524288, VolumeSize in GiB,
        ExpiryTime | ebsapi-faq, API_ListSnapshotBlocks | written: not in a hole, and not zeros that were
        zeros before
    limited | MaxResults 100 to 10,000, less counts as 100; a page may have less | ebsapi-faq, model | more
        is a ValidationException; ``Paging.page_cap``
    started | StartingBlockIndex, ignored beside NextToken | API_ListSnapshotBlocks, ebsapi-faq | the same
    paged | NextToken for 60 minutes, empty pages with one | ebsapi-faq | bound to the snapshots;
        INVALID_PAGE_TOKEN; ``Paging.empty_every``
    changed | new, gone and different blocks, without the token of a side that lacks it |
        API_ListChangedBlocks | by comparing the files, exactly
    changed-pages | a page spans MaxResults written blocks and may have no changed one | readsnapshots | the
        same
    unchanged | blocks that were written with what they held count as changed | concepts of EBS snapshots |
        never, but with ``Paging.unchanged_every``
    related | snapshots of one lineage | API_ListChangedBlocks | volumes made from a snapshot continue its
        lineage; UNRELATED_SNAPSHOTS
    all-changed | without FirstSnapshotId | model: not required, though its text says so | all written
        blocks
    block | 512 KiB, x-amz-Data-Length, x-amz-Checksum SHA256 in base64 | API_GetSnapshotBlock | the same
    token | of this block of this snapshot, for 7 days | ebsapi-faq | INVALID_BLOCK_TOKEN; INVALID_BLOCK
        past the end
    throttled | Get 1,000 a second a snapshot and an account, List 50 | EBS quotas, model |
        RequestThrottledException: RESOURCE_LEVEL_THROTTLE, ACCOUNT_THROTTLED; ``Quotas``

Both
    denied | UnauthorizedOperation 403; AccessDeniedException 403 with a reason | errors-overview, model |
        on demand
    faults | 5xx, lost answers, damaged blocks | error-retries | on demand, before or after the effect

Not here: signatures (any credentials do), IAM, writing snapshots, copies, Recycle Bin, DryRun, Outposts,
Multi-Attach, the times EBS itself takes (``Delays`` are zero by default).
"""

from standin.ebs.direct import Paging
from standin.ebs.model import Delays
from standin.ebs.quotas import UNLIMITED, Quotas
from standin.ebs.standin import EbsStandin

__all__ = ["UNLIMITED", "Delays", "EbsStandin", "Paging", "Quotas"]
