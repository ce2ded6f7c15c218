/**
 * The place of the first item for which it is true, by binary search: it is false for all before, and true for all after.
 * The number of items when there is none.
 */
export function firstPlace<Item>(items: readonly Item[], isBehind: (item: Item) => boolean): number {
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (isBehind(items[middle]!)) high = middle
    else low = middle + 1
  }
  return low
}
