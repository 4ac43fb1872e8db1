/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "pool2d": maximum or average of square windows of an image. Attributes:
 * 16 = FL_POOL_*, 17 = size, 18 = stride, 19 = padding. A maximum keeps one
 * byte per output, where in the window it was; a ReLU in front of it is done
 * here, on what is left. */
#include <fl/layers.h>

#include <string.h>

#include "base/error.h"
#include "linalg/conv.h"
#include "model/node.h"

enum { MAX_SIZE = 15, CUT_OFF = 255 };

static fl_status check_attributes(const fli_node *node)
{
  const char *what = NULL;
  uint32_t size = node->attributes.pool.size;
  uint64_t padding = node->attributes.pool.padding;
  if (node->attributes.pool.kind > FL_POOL_AVERAGE) what = "kind: want 0 or 1";
  if (size == 0 || size > MAX_SIZE) what = "size: want 1..15";
  if (node->attributes.pool.stride == 0) what = "stride: want >= 1";
  if (padding > size / 2) what = "padding: want at most half the size";
  if (size > node->input.dims[1] + 2 * padding ||
      size > node->input.dims[2] + 2 * padding) {
    what = "size: is larger than the image with its padding";
  }
  if (!what) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "pool2d %s: %s", node->name, what);
}

static fl_status pool_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  if (in->n_dims != 3) {
    return fli_error(FL_E_DIM,
                     "pool2d %s: input has %u dimensions, want an image's 3",
                     node->name, in->n_dims);
  }
  fl_status st = check_attributes(node);
  if (st != FL_OK) return st;
  uint64_t size = node->attributes.pool.size;
  uint64_t stride = node->attributes.pool.stride;
  uint64_t padding = node->attributes.pool.padding;
  node->output = *in;
  for (uint32_t i = 1; i <= 2; i++) {
    node->output.dims[i] = (in->dims[i] + 2 * padding - size) / stride + 1;
  }
  return fli_shape_check(&node->output, node->name);
}

static void pool_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.pool.kind);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 1, node->attributes.pool.size);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 2, node->attributes.pool.stride);
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE + 3, node->attributes.pool.padding);
}

static int pool_unpack(fli_node *node, uint32_t key, fli_msg_reader *reader)
{
  uint32_t *fields[] = {
      &node->attributes.pool.kind, &node->attributes.pool.size,
      &node->attributes.pool.stride, &node->attributes.pool.padding};
  if (key < FLI_FIRST_ATTRIBUTE ||
      key >= FLI_FIRST_ATTRIBUTE + FLI_COUNT_OF(fields)) {
    return 0;
  }
  *fields[key - FLI_FIRST_ATTRIBUTE] = fli_reader_u32(reader);
  return 1;
}

static int is_max(const fli_node *node)
{
  return node->attributes.pool.kind == FL_POOL_MAX;
}

static void pool_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  if (!is_max(node)) return;
  needs->kept = (fli_shape_floats(&node->output) * n + 3) / 4;
}

/* TEMPORARY LOOPS */
static void pool_forward(const fli_node *node, fli_pass *pass)
{
  size_t H=node->input.dims[1],W=node->input.dims[2],P=node->input.pixel;
  size_t h=node->output.dims[1],w=node->output.dims[2];
  size_t S=node->attributes.pool.size,T=node->attributes.pool.stride,pad=node->attributes.pool.padding;
  uint8_t *arg=(uint8_t*)pass->kept;
  for(size_t k=0;k<pass->n;k++) for(size_t i=0;i<h;i++) for(size_t j=0;j<w;j++) for(size_t c=0;c<P;c++){
    float best=-__builtin_inff(),sum=0; uint8_t at=0; int any=0;
    for(size_t a=0;a<S;a++) for(size_t b=0;b<S;b++){ size_t y=i*T+a,x=j*T+b; if(y<pad||x<pad||y-pad>=H||x-pad>=W) continue;
      float v=pass->x[0][((k*H+y-pad)*W+x-pad)*P+c]; sum+=v; if(!any||v>best||v!=v){best=v;at=(uint8_t)(a*S+b);any=1;} }
    size_t o=((k*h+i)*w+j)*P+c;
    if(is_max(node)){ if(node->does_relu&&!(best>0)){ if(best<=0){best=0;at=CUT_OFF;} } pass->y[o]=best; arg[o]=at; }
    else pass->y[o]=sum/(float)(S*S);
  }
}
static void pool_backward(const fli_node *node, fli_pass *pass)
{
  size_t H=node->input.dims[1],W=node->input.dims[2],P=node->input.pixel;
  size_t h=node->output.dims[1],w=node->output.dims[2];
  size_t S=node->attributes.pool.size,T=node->attributes.pool.stride,pad=node->attributes.pool.padding;
  uint8_t *arg=(uint8_t*)pass->kept; float*dx=pass->dx[0];
  if(!dx) return;
  memset(dx,0,pass->n*H*W*P*sizeof*dx);
  for(size_t k=0;k<pass->n;k++) for(size_t i=0;i<h;i++) for(size_t j=0;j<w;j++) for(size_t c=0;c<P;c++){
    size_t o=((k*h+i)*w+j)*P+c;
    if(is_max(node)){ if(arg[o]==CUT_OFF) continue; size_t y=i*T+arg[o]/S-pad,x=j*T+arg[o]%S-pad; dx[((k*H+y)*W+x)*P+c]+=pass->dy[o]; }
    else for(size_t a=0;a<S;a++) for(size_t b=0;b<S;b++){ size_t y=i*T+a,x=j*T+b; if(y<pad||x<pad||y-pad>=H||x-pad>=W) continue; dx[((k*H+y-pad)*W+x-pad)*P+c]+=pass->dy[o]/(float)(S*S);}
  }
}

const fli_node_op fli_op_pool2d = {
    .name = "pool2d",
    .n_inputs = 1,
    .n_attributes = 4,
    .shape = pool_shape,
    .pack = pool_pack,
    .unpack = pool_unpack,
    .needs = pool_needs,
    .forward = pool_forward,
    .backward = pool_backward,
};
