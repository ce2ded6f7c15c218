import type { AppendGroup, AppendReceipt, NewMessage } from '../../../engine.ts'
import { partitionFor, type Run, RunPacker, type RunPlace } from '../../record-batches.ts'
import { idHash } from './id-hash.ts'
import type { TopicRow } from './topics.ts'

/** A group on its way into the log. */
export interface Draft {
  readonly group: AppendGroup
  readonly topic: TopicRow
  /** The partition of each message. */
  readonly partitions: readonly number[]
  /** By their places in the group, those whose ids are known already. */
  readonly duplicates: Set<number>
}

/** A message whose id the topic is to remember. */
export interface GivenId {
  readonly draft: Draft
  readonly place: number
  readonly hash: string
}

export interface DelayedMessage {
  readonly topicId: number
  readonly partition: number
  readonly shared: string
  readonly message: NewMessage & { readonly deliverAtMs: number }
}

/** What is to become one record batch. */
export interface PackedRun extends Run {
  readonly topicId: number
  readonly shared: string
}

/** Messages of a topic that share their attributes, with none of other attributes between them. */
interface Section {
  readonly topicId: number
  readonly shared: string
  readonly packer: RunPacker
  /** The number of its first run, once all is packed. */
  firstRun: number
}

/** Where a message went: into a run of a section, or to those that wait or were known. */
type Packed = (RunPlace & { readonly section: Section }) | AppendReceipt

export interface PackedDrafts {
  readonly runs: readonly PackedRun[]
  readonly delayed: readonly DelayedMessage[]
  receiptsOf(draft: Draft, bases: readonly number[]): AppendReceipt[]
}

export function draftOf(group: AppendGroup, topic: TopicRow, keylessPartition: number): Draft {
  const partitions = group.messages.map((message) => partitionFor(message, topic.partitions, keylessPartition))
  return { group, topic, partitions, duplicates: new Set() }
}

/** Those that publishers gave, in the order of the messages. */
export function givenIds(drafts: readonly Draft[]): GivenId[] {
  return drafts.flatMap((draft) =>
    draft.group.messages.flatMap(({ id, deduplicate }, place) => {
      return deduplicate ? [{ draft, place, hash: idHash(id) }] : []
    }),
  )
}

/** Sorts the messages into record batches. Those of a topic keep their order in each partition, over all groups. */
export function pack(drafts: readonly Draft[], nowMs: number): PackedDrafts {
  const sections: Section[] = []
  const delayed: DelayedMessage[] = []
  const packed = new Map<Draft, readonly Packed[]>()
  for (const draft of drafts) packed.set(draft, packOne(draft, nowMs, sections, delayed))
  const runs = finish(sections)
  const receiptsOf = (draft: Draft, bases: readonly number[]) => {
    return packed.get(draft)!.map((place) => receiptOf(place, runs, bases))
  }
  return { runs, delayed, receiptsOf }
}

function packOne(draft: Draft, nowMs: number, sections: Section[], delayed: DelayedMessage[]): Packed[] {
  const { group, topic, partitions, duplicates } = draft
  const { topicId } = topic
  const section = sectionOf(sections, topicId, group.shared)
  return group.messages.map((message, place): Packed => {
    const partition = partitions[place]!
    if (duplicates.has(place)) return { duplicate: true }
    if (isDelayed(message, nowMs)) {
      delayed.push({ topicId, partition, shared: group.shared, message })
      return { duplicate: false }
    }
    const { run, index } = section.packer.add(partition, message.json, message.timeMs)
    return { section, run, index }
  })
}

function sectionOf(sections: Section[], topicId: number, shared: string): Section {
  const last = sections.findLast((section) => section.topicId === topicId)
  if (last?.shared === shared) return last
  const section = { topicId, shared, packer: new RunPacker(), firstRun: 0 }
  sections.push(section)
  return section
}

function finish(sections: readonly Section[]): PackedRun[] {
  const runs: PackedRun[] = []
  for (const section of sections) {
    const { topicId, shared, packer } = section
    section.firstRun = runs.length
    for (const run of packer.finish()) runs.push({ topicId, shared, ...run })
  }
  return runs
}

function receiptOf(packed: Packed, runs: readonly PackedRun[], bases: readonly number[]): AppendReceipt {
  if ('duplicate' in packed) return packed
  const run = packed.section.firstRun + packed.run
  return { duplicate: false, partition: runs[run]!.partition, offset: bases[run]! + packed.index }
}

export function isDelayed(message: NewMessage, nowMs: number): message is DelayedMessage['message'] {
  return message.deliverAtMs !== undefined && message.deliverAtMs > nowMs
}
