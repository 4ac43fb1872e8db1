/* SPDX-License-Identifier: Apache-2.0 */
/** @file fl.h  All stable headers of libfl. */
#ifndef FL_FL_H
#define FL_FL_H

#include <fl/base.h>
#include <fl/model.h>
#include <fl/layers.h>
#include <fl/train.h>
#include <fl/weights.h>
#include <fl/idx.h>
#include <fl/compress.h>
#include <fl/feedback.h>
#include <fl/cache.h>
#include <fl/freeze.h>
#include <fl/cohort.h>
#include <fl/embedding.h>
#include <fl/slices.h>
#include <fl/protocol.h>
#include <fl/selection.h>
#include <fl/store.h>
#include <fl/channel.h>
#include <fl/paged.h>
#include <fl/client.h>
#include <fl/server.h>
#include <fl/strategy.h>

#endif
